"""Data in external layouts: public sets by recognition, files of one's own by a mapping."""

from __future__ import annotations

from pdessl.data.formats.detection import described_apart, detect, open_apart, open_source, recognised
from pdessl.data.formats.files import Files
from pdessl.data.formats.in_memory import from_xarray, source_from_xarray
from pdessl.data.formats.mapping import DatasetMapping, load_mapping, mapping_names

__all__ = [
    "DatasetMapping",
    "Files",
    "described_apart",
    "detect",
    "from_xarray",
    "load_mapping",
    "mapping_names",
    "open_apart",
    "open_source",
    "recognised",
    "source_from_xarray",
]
