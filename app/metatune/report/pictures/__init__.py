"""Pictures that stand still, drawn with matplotlib: SVG for pages, pixels for TensorBoard.

matplotlib takes long to import: who doesn't always draw imports these modules where it does.
"""
