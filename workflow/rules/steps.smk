# Steps of the stages that work block by block, as jobs of their own: where a cluster has enough of them to do.
from functools import partial

for stage in plan.scatter.stages:

    rule:
        name:
            f"{stage}_step"
        input:
            partial(plan.step_inputs, stage, checkpoints),
        output:
            done=touch(plan.scatter.marker(stage)),
        log:
            plan.log(f"{stage}/{{step}}-{{part}}-of-{{parts}}"),
        conda:
            "../../envs/ffn.yaml"
        threads: plan.all_cores
        resources:
            nodes=plan.config.cluster.stage_nodes,
            tasks=partial(plan.step_ranks, stage),
            depth=0,
            mem_mb=plan.scatter.megabytes(stage),
            runtime=plan.scatter.minutes(stage),
        params:
            stage=stage,
            config=lambda wildcards, output: plan.config_file,
            launch=lambda wildcards, resources: plan.launch_ranks(resources, resources.tasks),
            ranks=lambda wildcards, resources: resources.tasks,
            settings=plan.stage_settings(stage),
        message:
            "{params.stage}, {wildcards.step}: part {wildcards.part} of {wildcards.parts}"
        shell:
            "{params.launch} ffn {params.stage} --config {params.config:q} --step {wildcards.step}"
            " --part {wildcards.part}/{wildcards.parts} --ranks {params.ranks} </dev/null 2>&1 | tee {log:q}"
