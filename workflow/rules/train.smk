if plan.trains:

    rule train:
        input:
            data=plan.data("train"),
            prepare=plan.marker("prepare"),
        output:
            done=update(touch(plan.marker("train"))),
        log:
            plan.log("train"),
        conda:
            "../../envs/ffn.yaml"
        threads: plan.training_threads
        resources:
            nodes=plan.config.cluster.nodes,
            tasks=plan.tasks,
            mem_mb=8000,
            runtime=plan.config.cluster.runtime_minutes,
            restarts=plan.config.cluster.restarts,
            attempt=lambda wildcards, attempt: attempt,
        params:
            config=lambda wildcards, output: plan.config_file,
            launch=lambda wildcards, resources: plan.launch_training(resources),
            ranks=lambda wildcards, resources: plan.training_ranks(resources),
            attend=lambda wildcards, output: plan.attend_training,
            settings=plan.settings(
                "data.train", "data.validation", "network", "training", "augmentation", "allreduce", "seed"
            ),
        message:
            "Training the network (continues where an earlier attempt stopped)"
        shell:
            "{params.attend} --attempt {resources.attempt} -- {params.launch} ffn train --wait --config {params.config:q}"
            " --ranks {params.ranks} </dev/null 2>&1 | tee {log:q}"
