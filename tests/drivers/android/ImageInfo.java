package androidx.camera.core;

/** A stand-in for CameraX's. */
public interface ImageInfo {
  int getRotationDegrees();
}
