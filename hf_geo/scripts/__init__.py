"""The scripts as modules, as in `accelerate launch -m hf_geo.scripts.train`. In a clone they are in its folder `scripts`."""

from hf_geo.resources import resource_folder

__path__ = [str(resource_folder("scripts"))]
