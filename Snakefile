include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/infer.smk"
include: "workflow/rules/assemble.smk"
include: "workflow/rules/agglomerate.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/steps.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/scaling.smk"


rule all:
    default_target: True
    input:
        plan.targets,
    localrule: True


# What a queue would not take is said before anything waits in it.
if workflow.is_main_process:
    asked = asked_of(workflow.rules)
    if refusals := plan.refusals(asked):
        raise WorkflowError("\n".join(refusals))
    if workflow.output_settings.dryrun and (node_hours := plan.node_hours(asked)):
        logger.info(node_hours)
