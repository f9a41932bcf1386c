if plan.scores:

    rule evaluate:
        input:
            data=plan.data("test"),
            segmentation=plan.segmentation_marker,
        output:
            done=plan.marker("evaluate"),
        log:
            plan.log("evaluate"),
        group:
            plan.group("evaluate")
        conda:
            "../../envs/ffn.yaml"
        resources:
            mem_mb=8000,
            runtime=plan.minutes("evaluate"),
        params:
            config=lambda wildcards, output: plan.config_file,
            launch=lambda wildcards, resources: plan.launch(resources),
            settings=plan.settings("data.test"),
        message:
            "Scoring the segmentation against ground truth"
        shell:
            "{params.launch} ffn evaluate --config {params.config:q} </dev/null 2>&1 | tee {log:q}"
