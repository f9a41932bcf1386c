if plan.agglomerates:

    rule agglomerate:
        input:
            data=plan.stage_inputs("agglomerate"),
            steps=plan.scatter.behind("agglomerate"),
        output:
            done=update(touch(plan.marker("agglomerate"))),
        log:
            plan.log("agglomerate"),
        conda:
            "../../envs/ffn.yaml"
        threads: plan.inference_threads
        resources:
            depth=0,
            mem_mb=plan.scatter.megabytes("agglomerate"),
            runtime=plan.scatter.minutes("agglomerate"),
        params:
            config=lambda wildcards, output: plan.config_file,
            launch=lambda wildcards, resources: plan.launch(resources),
            settings=plan.stage_settings("agglomerate"),
        message:
            "Joining pieces: pairs that meet are filled again from both sides"
        shell:
            "{params.launch} ffn agglomerate --config {params.config:q} </dev/null 2>&1 | tee {log:q}"
