package android.content.res;

import java.io.FileInputStream;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;

/** A stand-in for Android's: one asset, inside a package where it is stored as it is, or in a file. */
public class AssetManager {
  private final String file;
  private final long offset;
  private final long length;

  public AssetManager(String file, long offset, long length) {
    this.file = file;
    this.offset = offset;
    this.length = length;
  }

  public AssetFileDescriptor openFd(String name) throws IOException {
    if (offset < 0) throw new FileNotFoundException("it is probably compressed");
    return new AssetFileDescriptor(new FileInputStream(file), offset, length);
  }

  public InputStream open(String name) throws IOException {
    return new FileInputStream(file);
  }
}
