"""From recordings to `models/gunfire.tflite`: `python -m models.training --data DIR`."""
