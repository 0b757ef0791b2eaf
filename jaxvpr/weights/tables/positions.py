"""Names of GeoCLIP: its heads, as its releases hold them, and the whole model with CLIP's vision part."""

from jaxvpr.weights.tables.family import Family, Rows, under
from jaxvpr.weights.tables.transformers import CLIP, CLIP_TEXT

IMAGE: Rows = ((r"position/image/hidden", "0"), (r"position/image/output", "2"))
LOCATION: Rows = (
    (r"position/location/scale_(\d+)/frequencies", r"LocEnc\1.capsule.0.b"),
    *(
        (rf"position/location/scale_(\d+)/hidden_{number}", rf"LocEnc\1.capsule.{2 * number + 1}")
        for number in range(3)
    ),
    (r"position/location/scale_(\d+)/output", r"LocEnc\1.head.0"),
)
GEOCLIP: Rows = (
    *under("image_encoder.mlp.", IMAGE),
    *under("location_encoder.", LOCATION),
    (r"position/logit_scale", "logit_scale"),
)
# No file has the gallery: it lies beside them as a table of coordinates.
GALLERY = r"position/gallery"

FAMILIES = {
    "geoclip_heads": Family(rows=GEOCLIP, covers="position/", keeps=GALLERY),
    "geoclip": Family(
        rows=(*under("image_encoder.CLIP.", CLIP), *GEOCLIP),
        covers=("backbone/", "position/"),
        keeps=GALLERY,
        extras=(*(rf"image_encoder\.CLIP\.{name}" for name in CLIP_TEXT), r"gps_(queue|queue_ptr|gallery)"),
    ),
}
