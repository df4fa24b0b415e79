-- URIS
SELECT photo_id, uri FROM geofix.photo_record WHERE photo_id = ANY (%(photo_ids)s)
