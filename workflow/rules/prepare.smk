if plan.trains:

    rule prepare:
        input:
            data=plan.data("train"),
        output:
            done=plan.marker("prepare"),
        log:
            plan.log("prepare"),
        group:
            plan.group("prepare")
        conda:
            "../../envs/ffn.yaml"
        resources:
            mem_mb=8000,
            runtime=plan.minutes("prepare"),
        params:
            config=lambda wildcards, output: plan.config_file,
            launch=lambda wildcards, resources: plan.launch(resources),
            settings=plan.settings(
                "data.train",
                "data.validation",
                "data.voxel_size",
                "network",
                "prepare",
                "training.moves",
                "seed",
            ),
        message:
            "Finding seeds, partitions and balanced coordinates in the training volume"
        shell:
            "{params.launch} ffn prepare --config {params.config:q} </dev/null 2>&1 | tee {log:q}"
