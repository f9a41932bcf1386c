if plan.scores:

    rule evaluate:
        input:
            data=plan.stage_inputs("evaluate"),
            steps=plan.scatter.behind("evaluate"),
        output:
            done=update(touch(plan.marker("evaluate"))),
        log:
            plan.log("evaluate"),
        group:
            plan.group("evaluate")
        conda:
            "../../envs/ffn.yaml"
        resources:
            depth=0,
            mem_mb=plan.scatter.megabytes("evaluate"),
            runtime=plan.scatter.minutes("evaluate"),
        params:
            config=lambda wildcards, output: plan.config_file,
            launch=lambda wildcards, resources: plan.launch(resources),
            settings=plan.stage_settings("evaluate"),
        message:
            "Scoring the segmentation against ground truth"
        shell:
            "{params.launch} ffn evaluate --config {params.config:q} </dev/null 2>&1 | tee {log:q}"
