// An app: PACKAGE (weights at an offset), its OFFSET and LENGTH, WEIGHTS, PIXELS, WIDTH, CALLS. Prints
// boxes of a tensor, a bitmap and a camera's image, then how much memory many calls have taken.
import android.content.Context
import android.content.res.AssetManager
import android.graphics.Bitmap
import android.graphics.Rect
import androidx.camera.core.ImageInfo
import androidx.camera.core.ImageProxy
import java.io.File
import java.nio.ByteBuffer
import mdlc.net.Net
import mdlc.net.NetException

class Plane(private val bytes: ByteBuffer, private val row: Int, private val step: Int) : ImageProxy.PlaneProxy {
  override fun getRowStride() = row

  override fun getPixelStride() = step

  override fun getBuffer() = bytes
}

class Image(private val pixels: ByteBuffer, private val width: Int, private val degrees: Int) : ImageProxy {
  override fun getWidth() = width

  override fun getHeight() = pixels.capacity() / width / 4

  override fun getCropRect() = Rect(1, 2, width - 3, getHeight() - 1)

  override fun getImageInfo() = object : ImageInfo {
    override fun getRotationDegrees() = degrees
  }

  // Luma and chroma as cameras give them: the last rows end with their last pixel.
  override fun getPlanes(): Array<ImageProxy.PlaneProxy> {
    val luma = ByteBuffer.allocateDirect(width * getHeight())
    for (i in 0 until luma.capacity()) luma.put(i, pixels.get(4 * i))
    val chroma = ByteBuffer.allocateDirect(width * ((getHeight() + 1) / 2) - 1)
    for (i in 0 until chroma.capacity()) chroma.put(i, pixels.get(4 * i + 1))
    return arrayOf(Plane(luma, width, 1), Plane(chroma, width, 2), Plane(chroma, width, 2))
  }

  override fun close() {}
}

fun show(what: String, boxes: List<Net.Box>) {
  for (box in boxes) println("$what ${box.left} ${box.top} ${box.right} ${box.bottom} ${box.score} ${box.label}")
}

fun resident() =
  File("/proc/self/status").readLines().first { it.startsWith("VmRSS") }.filter { it.isDigit() }.toLong()

fun direct(bytes: ByteArray): ByteBuffer = ByteBuffer.allocateDirect(bytes.size).put(bytes)

fun fails(code: Int, block: () -> Unit) {
  try {
    block()
  } catch (error: NetException) {
    check(error.code == code && error.message!!.length > 10) { "$error" }
    return
  }
  error("taken")
}

fun main(args: Array<String>) {
  val context = Context(AssetManager(args[0], args[1].toLong(), args[2].toLong()))
  val pixels = File(args[4]).readBytes()
  val width = args[5].toInt()
  val tensor = direct(pixels.copyOf(8 * 12 * 3))
  val image = Image(direct(pixels), width, 90)
  val bitmap = Bitmap(pixels, width, Bitmap.Config.ARGB_8888)
  Net(context).use { net ->
    check(net.target == "generic")
    show("tensor", net.infer(tensor))
    show("bitmap", net.infer(bitmap, rotation = 180, mirror = true))
    show("image", net.infer(image))
    // Errors, from the class and from Kotlin.
    fails(-10) { net.infer(ByteBuffer.allocateDirect(8 * 12 * 3 - 1)) }
    fails(-10) { net.infer(ByteBuffer.allocate(8 * 12 * 3)) }
    fails(-19) { net.infer(bitmap, rotation = 45) }
    try {
      net.infer(Bitmap(pixels, width, Bitmap.Config.ALPHA_8))
      error("taken")
    } catch (expected: IllegalArgumentException) {
    }
    val planes = image.planes
    val before = LongArray(2)
    for (round in 0 until 2) {
      for (i in 0 until args[6].toInt() / 2) {
        net.infer(tensor)
        net.infer(bitmap)
        if (i % 1000 == 0) fails(-19) { net.infer(bitmap, rotation = 45) }
      }
      System.gc()
      before[round] = resident()
    }
    println("grown ${before[1] - before[0]} planes ${planes.size}")
    net.close()
    try {
      net.infer(tensor)
      error("taken")
    } catch (closed: IllegalStateException) {
    }
  }
  // Where the package has the weights compressed they are read.
  Net(Context(AssetManager(args[3], -1, 0))).use { show("read", it.infer(tensor)) }
  fails(-2) { Net(Context(AssetManager(args[0], args[1].toLong(), args[2].toLong() - 1))) }
  // Networks that are not kept, or not closed twice.
  for (i in 0 until 2000) Net(context).use { it.close() }
  println("done")
}
