if plan.agglomerates:

    rule agglomerate:
        input:
            data=plan.data("test"),
            weights=plan.weights,
            segmentation=plan.marker("assemble"),
        output:
            done=plan.marker("agglomerate"),
        log:
            plan.log("agglomerate"),
        conda:
            "../../envs/ffn.yaml"
        threads: plan.inference_threads
        resources:
            mem_mb=8000,
            runtime=plan.config.cluster.runtime_minutes,
        params:
            config=lambda wildcards, output: plan.config_file,
            launch=lambda wildcards, resources: plan.launch(resources),
            settings=plan.settings("agglomeration", "assembly", "data.test", "data.voxel_size", "network", "inference"),
        message:
            "Joining pieces: pairs that meet are filled again from both sides"
        shell:
            "{params.launch} ffn agglomerate --config {params.config:q} </dev/null 2>&1 | tee {log:q}"
