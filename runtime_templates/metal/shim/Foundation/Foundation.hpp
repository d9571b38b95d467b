// A stand-in for the part of metal-cpp's Foundation that mdlc's host classes use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace NS {

using UInteger = std::size_t;
enum StringEncoding { UTF8StringEncoding = 4 };

// Objects count their references, as those of Foundation do.
template <class T>
class Counted {
 public:
  static T* alloc() { return new T; }
  T* init() { return static_cast<T*>(this); }
  T* retain() {
    ++references_;
    return static_cast<T*>(this);
  }
  void release() {
    if (--references_ == 0) delete static_cast<T*>(this);
  }

 protected:
  int references_ = 1;
};

class String : public Counted<String> {
 public:
  static String* string(const char* text, StringEncoding) {
    static String last;  // autoreleased
    last.text_ = text;
    return &last;
  }
  const char* utf8String() const { return text_.c_str(); }

 private:
  std::string text_;
};

class Error : public Counted<Error> {};

class AutoreleasePool : public Counted<AutoreleasePool> {};

}  // namespace NS
