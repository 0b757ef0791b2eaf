"""Published methods by name, with architecture and preprocessing: to evaluate, describe images, import and export.

    python -m jaxvpr.main evaluate --config=configs/zoo.py:salad-dinov2b,weights=dino_salad.ckpt \
--database=FOLDER --queries=FOLDER
    python -m jaxvpr.main evaluate --config=configs/zoo.py:megaloc,weights=FILE,test_data.pitts30k.root=/data/pitts30k,\
test_data.pitts30k.split=test
    python -m jaxvpr.main extract --config=configs/zoo.py:eigenplaces-resnet50-2048,weights=FILE \
--images=FOLDER --out=FILE.npy
    python -m jaxvpr.main export --config=configs/zoo.py:mixvpr-resnet50-4096,weights=FILE --out=mixvpr.stablehlo

The preset is the name of a method; docs/models.md lists them. `weights` is the original's file, or one of ours.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a method; its name alone is set here, the command line fills in what it stands for.

    Raises:
      ValueError: where no method is named.
    """
    if not preset:
        raise ValueError("name a method behind a colon, as in configs/zoo.py:megaloc; docs/models.md lists them")
    config = common.base()
    config.name = config.method = preset
    config.eval.batch = 16
    return config
