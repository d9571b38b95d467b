package androidx.camera.core;

import android.graphics.Rect;
import java.nio.ByteBuffer;

/** A stand-in for CameraX's. */
public interface ImageProxy extends AutoCloseable {
  interface PlaneProxy {
    int getRowStride();

    int getPixelStride();

    ByteBuffer getBuffer();
  }

  int getWidth();

  int getHeight();

  Rect getCropRect();

  ImageInfo getImageInfo();

  PlaneProxy[] getPlanes();

  @Override
  void close();
}
