"""Reading, checking and generating COCO and LVIS annotation files."""
