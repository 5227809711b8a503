//! What several fuzz targets need.
