# Where volumes come from: public data, or the embedded synthetic volume.

if plan.fetches:

    rule fetch:
        localrule: True
        input:
            config=ancient(plan.config_file),
        output:
            touch(plan.fetched),
        log:
            plan.log("fetch"),
        params:
            settings=plan.settings("data.sources"),
        conda:
            "../../envs/ffn.yaml"
        message:
            "Fetching and verifying public data"
        shell:
            "ffn fetch --config {input.config:q} 2>&1 | tee {log:q}"


if plan.synthesises:

    rule synth:
        input:
            config=ancient(plan.config_file),
        output:
            done=plan.marker("synth"),
        log:
            plan.log("synth"),
        params:
            launch=lambda wildcards, resources: plan.launch(resources),
            settings=plan.settings("synthetic", "seed"),
            folder=lambda wildcards, output: Path(output.done).parent,
        resources:
            mem_mb=4000,
            runtime=30,
        conda:
            "../../envs/ffn.yaml"
        message:
            "Making a synthetic volume with exact labels"
        shell:
            "{params.launch} ffn synth --config {input.config:q} --output {params.folder:q} </dev/null 2>&1 | tee {log:q}"
