rule assemble:
    input:
        tiles=lambda wildcards: plan.stage_inputs("assemble", checkpoints),
        steps=plan.scatter.behind("assemble"),
    output:
        done=update(touch(plan.marker("assemble"))),
    log:
        plan.log("assemble"),
    conda:
        "../../envs/ffn.yaml"
    threads: plan.config.assembly.workers or plan.all_cores
    resources:
        depth=0,
        mem_mb=plan.scatter.megabytes("assemble"),
        runtime=plan.scatter.minutes("assemble"),
    params:
        config=lambda wildcards, output: plan.config_file,
        launch=lambda wildcards, resources: plan.launch(resources),
        settings=plan.stage_settings("assemble"),
    message:
        "Joining the sub-volumes: one id an object over the whole volume"
    shell:
        "{params.launch} ffn assemble --config {params.config:q} </dev/null 2>&1 | tee {log:q}"
