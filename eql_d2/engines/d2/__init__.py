"""All Detectron2 glue."""
