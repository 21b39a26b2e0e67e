# The version that is installed, as its header says. Until 1.0 a minor version may break the API: 0.1 does not serve who
# asks for 0.2, nor the other way round.

file(STRINGS "${CMAKE_CURRENT_LIST_DIR}/../../../include/ringloop.h" PACKAGE_VERSION REGEX "^#define LOOP_VERSION_STRING ")
string(REGEX REPLACE "^[^\"]*\"([^\"]*)\".*$" "\\1" PACKAGE_VERSION "${PACKAGE_VERSION}")

set(PACKAGE_VERSION_COMPATIBLE FALSE)
set(PACKAGE_VERSION_EXACT FALSE)
if(PACKAGE_FIND_VERSION_RANGE)
    if(PACKAGE_VERSION VERSION_GREATER_EQUAL PACKAGE_FIND_VERSION_MIN AND
        (PACKAGE_VERSION VERSION_LESS PACKAGE_FIND_VERSION_MAX OR
        (PACKAGE_FIND_VERSION_RANGE_MAX STREQUAL "INCLUDE" AND PACKAGE_VERSION VERSION_EQUAL PACKAGE_FIND_VERSION_MAX)))
        set(PACKAGE_VERSION_COMPATIBLE TRUE)
    endif()
elseif(PACKAGE_VERSION VERSION_GREATER_EQUAL PACKAGE_FIND_VERSION)
    string(REGEX MATCH "^(0[.][0-9]+|[0-9]+)" _ringloop_series "${PACKAGE_VERSION}")
    string(REGEX MATCH "^(0[.][0-9]+|[0-9]+)" _ringloop_wanted "${PACKAGE_FIND_VERSION}")
    if(_ringloop_series STREQUAL _ringloop_wanted)
        set(PACKAGE_VERSION_COMPATIBLE TRUE)
    endif()
    if(PACKAGE_VERSION VERSION_EQUAL PACKAGE_FIND_VERSION)
        set(PACKAGE_VERSION_EXACT TRUE)
    endif()
    unset(_ringloop_series)
    unset(_ringloop_wanted)
endif()
