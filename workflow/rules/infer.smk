if plan.batches.count is None:

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
            "ffn tiles --config {params.config:q} 2>{log:q} >{output.boxes:q}.partial"
            " && mv {output.boxes:q}.partial {output.boxes:q}"


rule infer:
    input:
        data=plan.data("test"),
        weights=plan.weights,
    output:
        done=touch(plan.pass_marker),
    log:
        plan.pass_log,
    conda:
        "../../envs/ffn.yaml"
    threads: plan.inference_threads
    resources:
        nodes=plan.config.cluster.inference_nodes,
        tasks=plan.inference_tasks,
        mem_mb=lambda wildcards: plan.inference_mb,
        runtime=plan.config.cluster.runtime_minutes,
    params:
        config=lambda wildcards, output: plan.config_file,
        launch=lambda wildcards, resources: plan.launch_inference(resources),
        ranks=lambda wildcards, resources: plan.inference_ranks(resources),
        settings=plan.pass_settings,
        number=lambda wildcards: wildcards.get("number", 0),
    message:
        "Flood-filling sub-volumes {wildcards.first} to {wildcards.last}, pass {params.number}"
    shell:
        "{params.launch} ffn infer --wait --config {params.config:q} --tile {wildcards.first}-{wildcards.last}"
        " --pass {params.number} --ranks {params.ranks} </dev/null 2>&1 | tee {log:q}"


if plan.joins_passes:

    rule consensus:
        input:
            passes=plan.pass_markers,
        output:
            done=touch(plan.batch_marker),
        log:
            plan.log("infer/{first}-{last}-consensus"),
        conda:
            "../../envs/ffn.yaml"
        threads: lambda wildcards: plan.consensus_workers(wildcards)
        resources:
            depth=0,
            mem_mb=plan.consensus_mb,
            runtime=plan.config.cluster.runtime_minutes,
        params:
            config=lambda wildcards, output: plan.config_file,
            launch=lambda wildcards, resources: plan.launch(resources),
            settings=plan.settings("inference"),
        message:
            "Keeping what the passes over sub-volumes {wildcards.first} to {wildcards.last} agree on"
        shell:
            "{params.launch} ffn consensus --wait --config {params.config:q} --tile {wildcards.first}-{wildcards.last}"
            " --ranks 1 </dev/null 2>&1 | tee {log:q}"
