rule report:
    input:
        **plan.results,
        data=plan.data("test"),
    output:
        **{
            name: report(file, caption=f"../report/{name}.rst", category="Results", labels={"result": name})
            for name, file in plan.figures.items()
        },
        done=plan.marker("report"),
    log:
        plan.log("report"),
    group:
        plan.group("report")
    conda:
        "../../envs/ffn.yaml"
    resources:
        depth=0,
        mem_mb=4000,
        runtime=15,
    params:
        config=lambda wildcards, output: plan.config_file,
        launch=lambda wildcards, resources: plan.launch(resources),
    message:
        "Drawing the report"
    shell:
        "{params.launch} ffn report --wait --config {params.config:q} </dev/null 2>&1 | tee {log:q}"
