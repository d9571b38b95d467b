# mdlc_add_model(<target> MODEL <file> [TARGET <isa>] [NAME <class>] [PRECISION <fp16|bf16>]
#                [EMBED_WEIGHTS] [OPTIONS <option>...] [DEPENDS <file>...])
#
# Adds a static library <target>: the C++ class that mdlc makes of a trained network, made anew
# whenever the model changes. Link to it and include "<class>.h".
#
#   MODEL          the .onnx file (relative to the current source folder)
#   TARGET         what to compile for, as listed by `mdlc targets`; default: host
#   NAME           the class; default: <target>
#   PRECISION      fp16: compute in half precision where the target does, else store weights in
#                  it; bf16: store weights in the upper half of float32
#   EMBED_WEIGHTS  the weights become part of the library; Init takes nullptr
#   OPTIONS        further options of mdlc, such as --input-format rgb8
#   DEPENDS        further files that the model needs
#
# The weights file's path is the target's property MDLC_WEIGHTS (empty with EMBED_WEIGHTS).
#
# Use:  execute_process(COMMAND mdlc --cmake-dir OUTPUT_VARIABLE dir OUTPUT_STRIP_TRAILING_WHITESPACE)
#       include(${dir}/mdlc.cmake)

cmake_minimum_required(VERSION 3.20)

function(mdlc_add_model target)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "EMBED_WEIGHTS" "MODEL;TARGET;NAME;PRECISION" "OPTIONS;DEPENDS")
  if(NOT ARG_MODEL OR ARG_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "mdlc_add_model(${target}): give MODEL <file>; unknown: ${ARG_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT ARG_TARGET)
    set(ARG_TARGET host)
  endif()
  if(ARG_TARGET MATCHES "^metal")
    message(FATAL_ERROR "mdlc_add_model(${target}): ${ARG_TARGET} brings a CMakeLists.txt; use add_subdirectory")
  endif()
  if(NOT ARG_NAME)
    set(ARG_NAME ${target})
  endif()
  find_program(MDLC_EXECUTABLE mdlc REQUIRED)
  execute_process(
    COMMAND ${MDLC_EXECUTABLE} targets --files ${ARG_TARGET}
    OUTPUT_VARIABLE endings OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  separate_arguments(endings UNIX_COMMAND "${endings}")

  get_filename_component(model ${ARG_MODEL} ABSOLUTE)
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/${target}.mdlc)
  set(code ${endings})
  if(ARG_EMBED_WEIGHTS)
    list(APPEND code _weights.cpp)
  endif()
  if("--c-api" IN_LIST ARG_OPTIONS)
    list(APPEND code _c.h _c.cpp)
  endif()
  list(TRANSFORM code PREPEND ${folder}/${ARG_NAME})
  set(outputs ${code} ${folder}/${ARG_NAME}.json ${folder}/main.cpp ${folder}/CMakeLists.txt)
  set(weights "")
  set(options ${ARG_OPTIONS})
  if(ARG_PRECISION)
    list(APPEND options --precision ${ARG_PRECISION})
  endif()
  if(ARG_EMBED_WEIGHTS)
    list(APPEND options --embed-weights)
  else()
    set(weights ${folder}/${ARG_NAME}.weights)
    list(APPEND outputs ${weights})
  endif()
  add_custom_command(
    OUTPUT ${outputs}
    COMMAND ${MDLC_EXECUTABLE} compile ${model} --target ${ARG_TARGET} --name ${ARG_NAME}
            --output ${folder} --depfile ${folder}.d ${options}
    DEPENDS ${model} ${ARG_DEPENDS}
    DEPFILE ${folder}.d
    COMMENT "mdlc ${ARG_MODEL} for ${ARG_TARGET}"
    VERBATIM)

  add_library(${target} STATIC ${code})
  target_include_directories(${target} PUBLIC ${folder})
  target_compile_features(${target} PUBLIC cxx_std_17)
  target_compile_options(${target} PRIVATE -O2)
  set_target_properties(${target} PROPERTIES MDLC_WEIGHTS "${weights}" POSITION_INDEPENDENT_CODE ON)
  if(CMAKE_SYSTEM_NAME MATCHES "Linux|Android")  # where pages may have 16 KiB
    target_link_options(${target} PUBLIC -Wl,-z,max-page-size=16384)
  endif()
endfunction()
