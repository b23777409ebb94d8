"""Pictures: cameras and crops, picture files as arrays, and meshes drawn without OpenGL."""

from hand_lib import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    project="camera",
    project_weak_perspective="camera",
    read_image="images",
    rasterise="raster",
    render_mesh="render",
)
