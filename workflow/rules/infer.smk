if plan.tile_count is None:

    # Only where the size of the test volume is not in the configuration.
    checkpoint tiles:
        input:
            data=plan.data("test"),
        output:
            boxes=plan.tile_list,
        log:
            plan.log("tiles"),
        localrule: True
        conda:
            "../../envs/ffn.yaml"
        params:
            config=lambda wildcards, output: plan.config_file,
            settings=plan.settings("data.test", "inference.subvolume_size", "inference.subvolume_overlap"),
        message:
            "Cutting the test volume into sub-volumes"
        shell:
            "ffn tiles --config {params.config:q} 2>{log:q} >{output.boxes:q}"


rule infer:
    input:
        data=plan.data("test"),
        weights=plan.weights,
    output:
        done=plan.pass_marker,
    log:
        plan.pass_log,
    conda:
        "../../envs/ffn.yaml"
    threads: plan.inference_threads
    resources:
        mem_mb=8000,
        runtime=plan.config.cluster.runtime_minutes,
    params:
        config=lambda wildcards, output: plan.config_file,
        launch=lambda wildcards, resources: plan.launch(resources),
        settings=plan.settings("data.test", "data.voxel_size", "network", "inference"),
        number=lambda wildcards: wildcards.get("number", 0),
    message:
        "Flood-filling sub-volume {wildcards.tile}, pass {params.number}"
    shell:
        "{params.launch} ffn infer --config {params.config:q} --tile {wildcards.tile} --pass {params.number}"
        " </dev/null 2>&1 | tee {log:q}"


if plan.joins_passes:

    rule consensus:
        input:
            passes=plan.pass_markers,
        output:
            done=plan.tile_marker,
        log:
            plan.log("infer/tile-{tile}-consensus"),
        conda:
            "../../envs/ffn.yaml"
        resources:
            mem_mb=8000,
            runtime=60,
        params:
            config=lambda wildcards, output: plan.config_file,
            launch=lambda wildcards, resources: plan.launch(resources),
            settings=plan.settings("inference"),
        message:
            "Keeping what the passes over sub-volume {wildcards.tile} agree on"
        shell:
            "{params.launch} ffn consensus --config {params.config:q} --tile {wildcards.tile} </dev/null 2>&1 | tee {log:q}"
