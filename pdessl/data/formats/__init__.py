"""Data in external layouts: public sets by recognition, files of one's own by a mapping."""

from __future__ import annotations

from pdessl.data.formats.detection import detect, open_source
from pdessl.data.formats.files import Files
from pdessl.data.formats.mapping import DatasetMapping, load_mapping, mapping_names

__all__ = ["DatasetMapping", "Files", "detect", "load_mapping", "mapping_names", "open_source"]
