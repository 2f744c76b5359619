"""Count people with an exported model, without dkpnet_ext: `python run_onnx.py counter.onnx photo.jpg ...`.

Needs numpy, pillow and onnxruntime. Write counter.onnx with `python -m dkpnet_ext.export`.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
stride, min_side, max_side = (json.loads(about[key]) for key in ("stride", "min_side", "max_side"))

for path in sys.argv[2:]:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    # The size that the model was trained for; it counts differently at another.
    scale = min(max(1.0, min_side / min(image.size)), max_side / max(image.size))
    if scale != 1:
        size = [max(1, int(side * scale + 0.5)) for side in image.size]
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    pixels = np.asarray(image).transpose(2, 0, 1)[None]  # uint8 [1, 3, height, width]; nothing to normalise
    density, count = session.run(["density", "count"], {"images": pixels})
    row, column = np.unravel_index(density[0, 0].argmax(), density.shape[2:])
    x, y = (int(cell * stride / scale) for cell in (column, row))  # a density cell covers stride x stride pixels
    print(f"{path}: {count[0]:.1f} people, densest near pixel x={x}, y={y}")
