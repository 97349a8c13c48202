"""The same YAML, loss and results file on torchvision's Mask R-CNN."""
