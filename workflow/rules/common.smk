# The checked configuration as `plan`, written down for the commands of the run.
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.utils import min_version

from ffn.cluster.resources import asked_of, default_site
from ffn.config.load import default_config_file
from ffn.errors import FFNError
from ffn.preflight import check_inputs
from ffn.workflow import Plan

min_version("9.0")

# A --configfile stands alone: Snakemake would merge it, key by key, into a default that is loaded here.
if not workflow.overwrite_configfiles:

    configfile: default_config_file(workflow.source_path("../../config.yaml"))


config_name = ", ".join(Path(file).name for file in workflow.configfiles) or "The configuration"

# Inputs are looked at once, not again in each job; a dry-run shows its plan without them.
try:
    plan = Plan.of(
        config,
        config_name,
        inputs=workflow.is_main_process and not workflow.output_settings.dryrun,
        jobs=workflow.resource_settings.nodes,
        site=default_site(workflow.resource_settings.default_resources),
    )
except FFNError as error:
    raise WorkflowError(str(error)) from None

if workflow.output_settings.dryrun:
    for problem in check_inputs(plan.config):
        logger.warning(f"A run would stop here: {problem}")
    for line in plan.outlook():
        logger.info(line)
else:
    plan.write_config()

if workflow.is_main_process:
    plan.batches.forget_lost()

# In the rules, `depth=0` stands for all cores of a node; rules of one group must agree on it. Params that are functions
# of `output` or `resources` do not start a rule again when they change; the param `settings` does: it holds what
# decides the rule's results.


wildcard_constraints:
    first=r"\d+",
    step=r"[a-z_]+",
    part=r"\d+",
    parts=r"\d+",
    last=r"\d+",
    number=r"\d+",
    ranks=r"\d+",
    repeat=r"\d+",
    round=r"\d+",
    cell=r"w\d+-[mp]\d+-s\d+",
