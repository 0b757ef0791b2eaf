"""An embedded, procedural street city that writes itself as ordinary JPEG files with '@' names.

From the plan to the picture: `config` says what is wanted; `layout` plans streets, blocks and lots; `houses` says how
tall each house is in a year, `facades` and `shops` draw it on a `canvas`; `scene` gathers the walls of a year and
their textures; `ground` and `weather` do what their names say; `lens` and `rays` are the geometry; `render` draws a
panorama with `paint` and, for trees, cars and people, `street` and `sprites`, and cuts views from it; `poses` places
cameras and names files, `drives` those of cameras that move; `drawing` draws them in several processes, `markers` say
what lies on disk, `write` does it all. `baseline` measures how hard the result is for raw thumbnails.

Everything random is a hash of the seed and of what it is for (`randomness`), so that the order of work does not matter.
"""

from data_pipelines.minicity.config import CONDITIONS, STYLES, CityConfig, DriveConfig
from data_pipelines.minicity.lens import strip_size
from data_pipelines.minicity.poses import ZONE
from data_pipelines.minicity.write import write, write_drives

__all__ = ["CONDITIONS", "STYLES", "ZONE", "CityConfig", "DriveConfig", "strip_size", "write", "write_drives"]
