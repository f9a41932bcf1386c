rule export:
    input:
        data=plan.stage_inputs("export"),
        steps=plan.scatter.behind("export"),
    output:
        done=update(touch(plan.marker("export"))),
    log:
        plan.log("export"),
    conda:
        "../../envs/ffn.yaml"
    threads: plan.config.export.workers or plan.all_cores
    resources:
        depth=0,
        mem_mb=plan.scatter.megabytes("export"),
        runtime=plan.scatter.minutes("export"),
    params:
        config=lambda wildcards, output: plan.config_file,
        launch=lambda wildcards, resources: plan.launch(resources),
        settings=plan.stage_settings("export"),
    message:
        "Exporting layers for Neuroglancer"
    shell:
        "{params.launch} ffn export --config {params.config:q} </dev/null 2>&1 | tee {log:q}"
