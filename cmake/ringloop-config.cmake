# find_package(ringloop) gives the targets
#   ringloop::ringloop  the shared library, or the static one where that is all there is
#   ringloop::static    the static library, with what of the system it needs
# and the variable ringloop_VERSION. Paths go from this file, <prefix>/share/ringloop/cmake, so that <prefix> can be moved.

get_filename_component(_ringloop_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

set(_ringloop_folders lib64 lib)
if(CMAKE_LIBRARY_ARCHITECTURE)
    list(INSERT _ringloop_folders 0 "lib/${CMAKE_LIBRARY_ARCHITECTURE}")
endif()
unset(_ringloop_shared)
unset(_ringloop_static)
foreach(_ringloop_folder IN LISTS _ringloop_folders)
    set(_ringloop_library "${_ringloop_prefix}/${_ringloop_folder}/libringloop")
    if(EXISTS "${_ringloop_library}.so" OR EXISTS "${_ringloop_library}.a")
        if(EXISTS "${_ringloop_library}.so")
            set(_ringloop_shared "${_ringloop_library}.so")
        endif()
        if(EXISTS "${_ringloop_library}.a")
            set(_ringloop_static "${_ringloop_library}.a")
        endif()
        break()
    endif()
endforeach()

if(NOT _ringloop_shared AND NOT _ringloop_static)
    set(ringloop_FOUND FALSE)
    string(REPLACE ";" ", " ringloop_NOT_FOUND_MESSAGE "${_ringloop_folders}")
    set(ringloop_NOT_FOUND_MESSAGE "there is no libringloop in ${ringloop_NOT_FOUND_MESSAGE} of ${_ringloop_prefix}")
else()
    if(_ringloop_static AND NOT TARGET ringloop::static)
        add_library(ringloop::static STATIC IMPORTED)
        set_target_properties(ringloop::static PROPERTIES
            IMPORTED_LOCATION "${_ringloop_static}"
            INTERFACE_INCLUDE_DIRECTORIES "${_ringloop_prefix}/include"
            INTERFACE_LINK_LIBRARIES "util;rt;pthread;m;dl")
    endif()
    if(NOT TARGET ringloop::ringloop)
        if(_ringloop_shared)
            add_library(ringloop::ringloop SHARED IMPORTED)
            set_target_properties(ringloop::ringloop PROPERTIES
                IMPORTED_LOCATION "${_ringloop_shared}"
                INTERFACE_INCLUDE_DIRECTORIES "${_ringloop_prefix}/include")
        else()
            add_library(ringloop::ringloop INTERFACE IMPORTED)
            set_target_properties(ringloop::ringloop PROPERTIES INTERFACE_LINK_LIBRARIES ringloop::static)
        endif()
    endif()
endif()

foreach(_ringloop_name prefix folder folders library shared static)
    unset(_ringloop_${_ringloop_name})
endforeach()
unset(_ringloop_name)
