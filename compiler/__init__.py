"""The model as data: types, IR, operators, ONNX import, rewrite engine, reference interpreter."""
