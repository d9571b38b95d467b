package android.os;

import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.lang.reflect.Field;

/** A stand-in for Android's. */
public class ParcelFileDescriptor {
  private final FileInputStream stream;

  public ParcelFileDescriptor(FileInputStream stream) {
    this.stream = stream;
  }

  public int getFd() {
    try {
      Field field = FileDescriptor.class.getDeclaredField("fd");
      field.setAccessible(true);
      return field.getInt(stream.getFD());
    } catch (Exception error) {
      throw new IllegalStateException(error);
    }
  }
}
