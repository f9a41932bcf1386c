rule assemble:
    input:
        tiles=lambda wildcards: plan.batch_markers(checkpoints),
    output:
        done=plan.marker("assemble"),
    log:
        plan.log("assemble"),
    conda:
        "../../envs/ffn.yaml"
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        config=lambda wildcards, output: plan.config_file,
        launch=lambda wildcards, resources: plan.launch(resources),
        settings=plan.settings("assembly", "data.test"),
    message:
        "Joining the sub-volumes: one id an object over the whole volume"
    shell:
        "{params.launch} ffn assemble --config {params.config:q} </dev/null 2>&1 | tee {log:q}"
