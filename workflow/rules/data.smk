# Where volumes come from: public data, or the embedded synthetic volume.

if plan.fetches:

    rule fetch:
        output:
            touch(plan.fetched),
        log:
            plan.log("fetch"),
        localrule: True
        conda:
            "../../envs/ffn.yaml"
        params:
            config=lambda wildcards, output: plan.config_file,
            settings=plan.settings("data.sources"),
        message:
            "Fetching and verifying public data"
        shell:
            "ffn fetch --config {params.config:q} 2>&1 | tee {log:q}"


if plan.synthesises:

    rule synth:
        output:
            done=update(touch(plan.marker("synth"))),
        log:
            plan.log("synth"),
        group:
            plan.group("synth")
        conda:
            "../../envs/ffn.yaml"
        resources:
            depth=0,
            mem_mb=4000,
            runtime=plan.synth_minutes,
        params:
            config=lambda wildcards, output: plan.config_file,
            launch=lambda wildcards, resources: plan.launch(resources),
            settings=plan.settings("synthetic", "seed"),
            folder=lambda wildcards, output: Path(output.done).parent,
        message:
            "Making a synthetic volume with exact labels"
        shell:
            "{params.launch} ffn synth --wait --config {params.config:q} --output {params.folder:q} </dev/null 2>&1 | tee {log:q}"
