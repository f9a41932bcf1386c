# The checked configuration as `plan`, and the rule that writes it down for all commands of the run.
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.utils import min_version

from ffn.errors import FFNError
from ffn.workflow import Plan, default_config_file, input_problems

min_version("9.0")

# A --configfile stands alone: Snakemake would merge it, key by key, into a default that is loaded here.
if not workflow.overwrite_configfiles:

    configfile: default_config_file(workflow.source_path("../../config.yaml"))


config_name = ", ".join(Path(file).name for file in workflow.configfiles) or "The configuration"

# Inputs are looked at once, not again in each job; a dry-run shows its plan without them.
try:
    plan = Plan.of(config, config_name, inputs=workflow.is_main_process and not workflow.output_settings.dryrun)
except FFNError as error:
    raise WorkflowError(str(error)) from None

if workflow.is_main_process and workflow.output_settings.dryrun:
    for problem in input_problems(plan.config):
        logger.warning(f"A run would stop here: {problem}")


wildcard_constraints:
    tile=r"\d+",


rule config:
    output:
        plan.config_file,
    log:
        plan.log("config"),
    localrule: True
    conda:
        "../../envs/ffn.yaml"
    params:
        values=plan.config_text,
    message:
        "Writing the checked configuration to {output}"
    shell:
        "ffn config write {params.values:q} --output {output:q} 2>&1 | tee {log:q}"
