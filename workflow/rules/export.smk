rule export:
    input:
        data=plan.data("test"),
        segmentation=plan.segmentation_marker,
    output:
        done=plan.marker("export"),
    log:
        plan.log("export"),
    conda:
        "../../envs/ffn.yaml"
    threads: plan.export_threads
    resources:
        mem_mb=8000,
        runtime=plan.minutes("export"),
    params:
        config=lambda wildcards, output: plan.config_file,
        launch=lambda wildcards, resources: plan.launch(resources),
        settings=plan.settings("export", "data.test", "data.voxel_size"),
    message:
        "Exporting layers for Neuroglancer"
    shell:
        "{params.launch} ffn export --config {params.config:q} </dev/null 2>&1 | tee {log:q}"
