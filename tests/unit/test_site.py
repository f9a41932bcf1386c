"""What is known of a machine, and what its queues take."""

import pytest
import yaml

from ffn.cluster.profiles import shipped_profiles
from ffn.cluster.site import Request, load_site, request_problem
from ffn.errors import ClusterError

SHIPPED = [shipped_profiles()]
SITES = sorted(path.parent.name for path in shipped_profiles().glob("*/site.yaml"))


def problem(site, nodes, minutes, queue, rules=("train",)):
    return request_problem(load_site(site, SHIPPED), Request(rules, nodes, minutes, queue))


@pytest.mark.parametrize("name", SITES)
def test_a_profile_and_its_site_agree(name):
    profile = yaml.safe_load((shipped_profiles() / name / "config.yaml").read_text())
    site, resources = load_site(name, SHIPPED), profile["default-resources"]
    assert resources["site"] == f"'{name}'"
    for verb in ("submit", "status", "cancel", "sidecar"):
        assert profile[f"cluster-generic-{verb}-cmd"] == f"ffn-{site.scheduler}-{verb}"
    assert resources.get("depth", site.node.depth(1)) <= site.node.cores * site.node.hyperthreads
    if site.queues:
        queue = resources["queue"].strip("'")
        assert problem(name, resources["nodes"], resources["runtime"], queue) is None


@pytest.mark.parametrize("name", SITES)
def test_sizes_of_a_queue_ascend(name):
    for queue in load_site(name, SHIPPED).queues.values():
        bounds = [bound for size in queue.sizes for bound in size.nodes]
        assert bounds == sorted(bounds)
        assert all(size.minutes[0] <= size.minutes[1] for size in queue.sizes)


@pytest.mark.parametrize(
    ("site", "nodes", "minutes", "queue", "words"),
    [
        (
            "theta", 64, 60, "debug-cache-quad",
            "debug-cache-quad takes 1 to 8 nodes, rule train asks for 64 nodes, 60 minutes: use default with.* 128",
        ),
        ("theta", 8, 61, "debug-cache-quad", "gives 8 nodes at most 60 minutes.*: use default with at least 128 nodes"),
        ("theta", 128, 181, "default", "gives 128 nodes at most 180 minutes.*use default with at least 256 nodes"),
        ("theta", 128, 29, "default", "takes jobs of at least 30 minutes with 128 nodes.*ask for 30"),
        ("theta", 1, 60, "batch", "Theta has no queue 'batch'.*use debug-cache-quad, debug-flat-quad, default"),
        ("theta", 5000, 60, "default", "use at most 4,392 nodes"),
        ("polaris", 3, 60, "debug", "debug takes 1 to 2 nodes.*use debug-scaling or preemptable or capacity"),
        ("polaris", 24, 240, "prod", "gives 24 nodes at most 180 minutes.*use prod with at least 25 nodes"),
        ("aurora", 300, 30, "debug-scaling", "debug-scaling takes 2 to 256 nodes.*use prod"),
    ],
)  # fmt: skip
def test_what_a_queue_does_not_take(site, nodes, minutes, queue, words):
    with pytest.raises(ClusterError, match=words):
        raise ClusterError(problem(site, nodes, minutes, queue))


@pytest.mark.parametrize(
    ("site", "nodes", "minutes", "queue"),
    [
        ("theta", 8, 60, "debug-cache-quad"), ("theta", 802, 1440, "default"), ("polaris", 496, 1440, "prod"),
        ("aurora", 10624, 1440, "prod"), ("slurm", 10**6, 10**6, "any"),
    ],
)  # fmt: skip
def test_what_it_takes(site, nodes, minutes, queue):
    assert problem(site, nodes, minutes, queue) is None


def test_rules_that_ask_for_the_same_are_named_together():
    assert "rules evaluate, export ask for 9 nodes" in problem(
        "theta", 9, 60, "debug-cache-quad", ["evaluate", "export"]
    )


def test_a_site_of_the_users_own_comes_first(tmp_path):
    (tmp_path / "theta").mkdir()
    text = (shipped_profiles() / "theta" / "site.yaml").read_text()
    (tmp_path / "theta" / "site.yaml").write_text(text.replace("name: Theta", "name: My Theta"))
    assert load_site("theta", [tmp_path, *SHIPPED]).name == "My Theta"
    assert load_site("polaris", [tmp_path, *SHIPPED]).name == "Polaris"


def test_unknown_site_is_told(tmp_path):
    with pytest.raises(ClusterError, match=r"There is no site 'mira'.*Known: aurora, polaris, slurm, theta"):
        load_site("mira", SHIPPED)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scheduler": "lsf"}, r"scheduler: Input should be 'cobalt', 'pbs' or 'slurm'"),
        ({"node": {"cores": 0}}, r"node\.cores: "),
        ({"nodes": 3}, r"nodes: Extra inputs"),
        ({"queues": {"q": {"sizes": []}}}, r"queues\.q\.sizes: "),
    ],
)
def test_a_site_that_cannot_be(tmp_path, change, words):
    facts = {"name": "Mine", "scheduler": "slurm", "launcher": "srun", "node": {"cores": 8}, **change}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "site.yaml").write_text(yaml.safe_dump(facts))
    with pytest.raises(ClusterError, match=rf"mine/site\.yaml does not describe a site: {words}"):
        load_site("mine", [tmp_path])


def test_a_file_that_is_no_yaml(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "site.yaml").write_text("name: [")
    with pytest.raises(ClusterError, match=r"site\.yaml cannot be read"):
        load_site("mine", [tmp_path])
