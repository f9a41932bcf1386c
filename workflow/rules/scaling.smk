# The scaling study: `snakemake scaling`, `snakemake lr_study`, `snakemake efficiency`, `snakemake cost_model`.

if plan.trains:

    rule scaling_point:
        input:
            data=plan.data("train"),
            prepare=plan.marker("prepare"),
        output:
            done=plan.study.point_marker,
        log:
            plan.log("scaling/ranks-{ranks}-repeat-{repeat}"),
        conda:
            "../../envs/ffn.yaml"
        # All cores: two measurements at once would spoil each other.
        threads: plan.all_cores
        resources:
            nodes=lambda wildcards: plan.study.nodes(int(wildcards.ranks)),
            tasks=lambda wildcards: int(wildcards.ranks),
            mem_mb=8000,
            runtime=30,
        params:
            config=lambda wildcards, output: plan.config_file,
            launch=lambda wildcards, resources: plan.launch_ranks(resources, int(wildcards.ranks)),
            settings=plan.settings("network", "training", "augmentation", "allreduce", "threads", "study.scaling"),
        message:
            "Timing training with {wildcards.ranks} ranks, start {wildcards.repeat}"
        shell:
            "{params.launch} ffn study rate --config {params.config:q} --ranks {wildcards.ranks}"
            " --repeat {wildcards.repeat} </dev/null 2>&1 | tee {log:q}"

    rule scaling:
        input:
            points=plan.study.point_markers,
        output:
            figure=report(
                plan.study.figure("strong"),
                caption="../report/scaling.rst",
                category="Scaling study",
                labels={"result": "throughput"},
            ),
            done=plan.study.marker("strong"),
        log:
            plan.log("scaling"),
        localrule: True
        conda:
            "../../envs/ffn.yaml"
        params:
            config=lambda wildcards, output: plan.config_file,
        message:
            "Throughput over ranks"
        shell:
            "ffn study scaling --config {params.config:q} 2>&1 | tee {log:q}"

    # Which cells come next depends on those that are done.
    checkpoint lr_round:
        input:
            data=plan.data("train"),
            cells=lambda wildcards: plan.study.cells_of_round(checkpoints, int(wildcards.round) - 1),
        output:
            cells=plan.study.round_list,
        log:
            plan.log("lr_study/round-{round}"),
        conda:
            "../../envs/ffn.yaml"
        resources:
            mem_mb=8000,
            runtime=60,
        params:
            config=lambda wildcards, output: plan.config_file,
            launch=lambda wildcards, resources: plan.launch(resources),
            settings=plan.settings(*plan.study.cell_keys, "study.lr_study", "study.real"),
        message:
            "Choosing the cells of round {wildcards.round}"
        shell:
            "{params.launch} ffn study next-cells --config {params.config:q} --output {output.cells:q}"
            " </dev/null 2>&1 | tee {log:q}"

    rule lr_cell:
        output:
            done=plan.study.cell_marker,
        log:
            plan.log("lr_study/{cell}"),
        conda:
            "../../envs/ffn.yaml"
        threads: plan.study.cell_threads or plan.all_cores
        resources:
            nodes=lambda wildcards: plan.study.nodes(plan.study.ranks(wildcards.cell)),
            tasks=lambda wildcards: plan.study.ranks(wildcards.cell),
            mem_mb=8000,
            runtime=plan.config.cluster.runtime_minutes,
        params:
            config=lambda wildcards, output: plan.config_file,
            launch=lambda wildcards, resources: plan.launch_ranks(resources, plan.study.ranks(wildcards.cell)),
            settings=plan.settings(*plan.study.cell_keys, "study.real"),
        message:
            "Training cell {wildcards.cell}"
        shell:
            "{params.launch} ffn study cell --config {params.config:q} --cell {wildcards.cell} </dev/null 2>&1"
            " | tee {log:q}"

    rule lr_study:
        input:
            cells=lambda wildcards: plan.study.all_cells(checkpoints),
        output:
            figure=report(
                plan.study.figure("lr_study"),
                caption="../report/lr_study.rst",
                category="Scaling study",
                labels={"result": "learning rate"},
            ),
            done=plan.study.marker("lr_study"),
        log:
            plan.log("lr_study"),
        conda:
            "../../envs/ffn.yaml"
        resources:
            mem_mb=8000,
            runtime=30,
        params:
            config=lambda wildcards, output: plan.config_file,
            launch=lambda wildcards, resources: plan.launch(resources),
            settings=plan.settings("study.lr_study"),
        message:
            "Learning rate over workers"
        shell:
            "{params.launch} ffn study lr --config {params.config:q} </dev/null 2>&1 | tee {log:q}"

    rule efficiency:
        input:
            cells=plan.study.marker("lr_study"),
            costs=plan.study.efficiency_costs,
        output:
            figure=report(
                plan.study.figure("efficiency"),
                caption="../report/efficiency.rst",
                category="Scaling study",
                labels={"result": "time to F1"},
            ),
            done=plan.study.marker("efficiency"),
        log:
            plan.log("efficiency"),
        localrule: True
        conda:
            "../../envs/ffn.yaml"
        params:
            config=lambda wildcards, output: plan.config_file,
            settings=plan.settings("study.efficiency"),
        message:
            "Time and fields of view to a given F1"
        shell:
            "ffn study efficiency --config {params.config:q} 2>&1 | tee {log:q}"

    rule cost_model:
        input:
            data=plan.data("train"),
            prepare=plan.marker("prepare"),
        output:
            figure=report(
                plan.study.figure("cost"),
                caption="../report/cost.rst",
                category="Scaling study",
                labels={"result": "costs"},
            ),
            done=plan.study.marker("cost"),
        log:
            plan.log("cost_model"),
        conda:
            "../../envs/ffn.yaml"
        threads: plan.all_cores
        resources:
            mem_mb=8000,
            runtime=60,
        params:
            config=lambda wildcards, output: plan.config_file,
            launcher=lambda wildcards, resources: plan.launcher(resources),
            settings=plan.settings("network", "training", "augmentation", "allreduce", "threads", "study.cost"),
        message:
            "Calibrating the cost model"
        shell:
            "ffn study cost --config {params.config:q} --launcher {params.launcher} </dev/null 2>&1 | tee {log:q}"
