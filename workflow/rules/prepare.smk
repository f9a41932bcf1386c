if plan.trains:

    rule prepare:
        input:
            config=ancient(plan.config_file),
            data=plan.data("train"),
        output:
            done=plan.marker("prepare"),
        log:
            plan.log("prepare"),
        conda:
            "../../envs/ffn.yaml"
        resources:
            mem_mb=8000,
            runtime=60,
        params:
            launch=lambda wildcards, resources: plan.launch(resources),
            settings=plan.settings("data.train", "data.voxel_size", "network", "prepare", "training.moves", "seed"),
        message:
            "Finding seeds, partitions and balanced coordinates in the training volume"
        shell:
            "{params.launch} ffn prepare --config {input.config:q} </dev/null 2>&1 | tee {log:q}"
