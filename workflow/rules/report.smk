rule report:
    input:
        config=ancient(plan.config_file),
        data=plan.data("test"),
        **plan.results,
    output:
        done=plan.marker("report"),
        **{
            name: report(file, caption=f"../report/{name}.rst", category="Results", labels={"result": name})
            for name, file in plan.figures.items()
        },
    log:
        plan.log("report"),
    params:
        launch=lambda wildcards, resources: plan.launch(resources),
    resources:
        mem_mb=4000,
        runtime=30,
    conda:
        "../../envs/ffn.yaml"
    message:
        "Drawing the report"
    shell:
        "{params.launch} ffn report --config {input.config:q} </dev/null 2>&1 | tee {log:q}"
