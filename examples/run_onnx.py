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
stride = json.loads(about["stride"])  # a density cell covers stride x stride pixels

for path in sys.argv[2:]:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    pixels = np.asarray(image).transpose(2, 0, 1)[None]  # uint8 [1, 3, height, width], any size; nothing to normalise
    density, count = session.run(["density", "count"], {"images": pixels})
    row, column = np.unravel_index(density[0, 0].argmax(), density.shape[2:])
    print(f"{path}: {count[0]:.1f} people, densest near pixel x={column * stride}, y={row * stride}")
