if plan.trains:

    rule prepare:
        input:
            data=plan.stage_inputs("prepare"),
            steps=plan.scatter.behind("prepare"),
        output:
            done=update(touch(plan.marker("prepare"))),
        log:
            plan.log("prepare"),
        group:
            plan.group("prepare")
        conda:
            "../../envs/ffn.yaml"
        resources:
            depth=0,
            mem_mb=plan.scatter.megabytes("prepare"),
            runtime=plan.scatter.minutes("prepare"),
        params:
            config=lambda wildcards, output: plan.config_file,
            launch=lambda wildcards, resources: plan.launch(resources),
            settings=plan.stage_settings("prepare"),
        message:
            "Finding seeds, partitions and balanced coordinates in the training volume"
        shell:
            "{params.launch} ffn prepare --config {params.config:q} </dev/null 2>&1 | tee {log:q}"
