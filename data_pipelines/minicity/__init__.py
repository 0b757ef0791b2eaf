"""An embedded, procedural street city that writes itself as ordinary JPEG files with '@' names."""

from data_pipelines.minicity.config import CONDITIONS, STYLES, CityConfig
from data_pipelines.minicity.write import write

__all__ = ["CONDITIONS", "STYLES", "CityConfig", "write"]
