"""Public data that the workflow brings to the user: what there is, how it is fetched and how it is verified."""

from ffn.sources.catalogue import DATASETS, Dataset
from ffn.sources.fetch import Fetched, fetch, fetch_all, record_path
from ffn.sources.verify import problems_of

__all__ = ["DATASETS", "Dataset", "Fetched", "fetch", "fetch_all", "problems_of", "record_path"]
