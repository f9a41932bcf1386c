rule assemble:
    input:
        tiles=lambda wildcards: plan.batch_markers(checkpoints),
    output:
        done=plan.marker("assemble"),
    log:
        plan.log("assemble"),
    conda:
        "../../envs/ffn.yaml"
    threads: plan.assembly_threads
    resources:
        mem_mb=8000,
        runtime=plan.config.cluster.runtime_minutes,
    params:
        config=lambda wildcards, output: plan.config_file,
        launch=lambda wildcards, resources: plan.launch(resources),
        settings=plan.settings("assembly", "agglomeration.enabled", "data.test"),
    message:
        "Joining the sub-volumes: one id an object over the whole volume"
    shell:
        "{params.launch} ffn assemble --config {params.config:q} </dev/null 2>&1 | tee {log:q}"
