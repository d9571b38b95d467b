package android.graphics;

import java.nio.Buffer;
import java.nio.ByteBuffer;

/** A stand-in for Android's: bytes of RGBA. */
public class Bitmap {
  public enum Config { ALPHA_8, ARGB_8888 }

  private final byte[] pixels;
  private final int width;
  private final Config config;

  public Bitmap(byte[] pixels, int width, Config config) {
    this.pixels = pixels;
    this.width = width;
    this.config = config;
  }

  public Config getConfig() {
    return config;
  }

  public int getWidth() {
    return width;
  }

  public int getHeight() {
    return pixels.length / getRowBytes();
  }

  public int getRowBytes() {
    return width * 4;
  }

  public void copyPixelsToBuffer(Buffer to) {
    ((ByteBuffer) to).put(pixels);
  }
}
